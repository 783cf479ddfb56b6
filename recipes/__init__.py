"""Ready-made runs: data, modules and entry points that use the library as any user would."""
