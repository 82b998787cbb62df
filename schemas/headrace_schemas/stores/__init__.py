"""Third-party engines that more than one pipeline talks to, each behind one small, lazily imported module."""
