"""The image as it is run: built for real, started from its own configuration in a container of kernel namespaces."""
