"""Writers of runs for other tools: nobody is locked in."""
