"""Errors that a user can mend: what was given, what is allowed, what to do."""


class PrunusError(Exception):
    """Base of every error whose message is meant for the user; the command line prints it and exits 2."""


class PromptError(PrunusError):
    """A prompt that the model or world at hand does not understand."""
