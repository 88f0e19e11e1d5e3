"""What the small empathetic model (SEM) knows, and how it steers and guards the arena."""
