"""The word that stands for the subject in every prompt."""

IDENTIFIER = "<S*>"
