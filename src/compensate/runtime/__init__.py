"""Running sagas: one (`SagaExecutor`) or many (`Coordinator`), and the blocking twin (`connect`)."""
