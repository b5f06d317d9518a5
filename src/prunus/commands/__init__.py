"""What the command line does; ``prunus.cli`` only declares its options."""
