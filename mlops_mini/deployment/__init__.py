"""What the package has made, in the words of cloud platforms: requests, messages, build steps."""
