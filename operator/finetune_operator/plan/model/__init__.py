"""What the planner is given and what it answers: typed values, names, texts. It imports only api and the contract."""
