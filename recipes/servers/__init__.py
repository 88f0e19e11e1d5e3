"""Real model servers on this machine: installed, started, and measured beside the local engine."""
