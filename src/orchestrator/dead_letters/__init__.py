"""Dead letters: messages that nobody could deal with and tasks that used up their attempts, for people to settle."""
