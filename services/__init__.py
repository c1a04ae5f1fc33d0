"""The services of the suite. They meet only through `shared.contracts` and the broker."""
