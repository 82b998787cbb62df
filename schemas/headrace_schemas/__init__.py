"""Contracts that cross a process boundary: each with its writer's and its reader's codec side by side."""
