"""What command lines and settings files say: options of the data, plug-ins, files of settings."""
