"""headrace: placeholder until cli/ is there."""
