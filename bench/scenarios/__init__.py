"""The scenarios: each measures one thing, and adds its rows and checks to the report."""
