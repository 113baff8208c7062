"""The model server: TensorFlow Serving's protocol over REST and gRPC."""
