"""The contract with plugins: what they may implement, how they are found, configured, called and cut off.

Here live the hook specifications, discovery by entry point or folder, one instance per configuration table, the only
caller of plugin code (deadlines, isolation, quarantine) and the context a plugin is handed. Never here: any knowledge
of a vendor, of money rules, of the ledger or of who asks. Plugins propose; whether money moves is decided elsewhere.
"""
