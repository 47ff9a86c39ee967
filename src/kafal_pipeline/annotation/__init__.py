"""Labels by people: what is asked of them, what they answered, and the ways to ask."""
