"""The built-in steps, one module each; the package re-exports none, the names would clash."""
