"""The story languages, whose distribution is known exactly."""
