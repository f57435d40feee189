"""The one gRPC server of a process: binding by descriptor, status codes, health, and Dapr's callbacks."""
