"""The command line, run in this process, each test in a folder of its own."""
