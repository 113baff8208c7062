"""The second use case: Fashion-MNIST, photos of clothes and what they show."""
