"""Settings of command lines and files: options of the data, plug-ins, files of settings."""
