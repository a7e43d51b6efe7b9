"""The policy language and the decision: what a plugin asks, what the operator allows, what is granted."""
