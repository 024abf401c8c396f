"""For tests: of sagas, and of stores (`conformance`)."""
