"""The claims that zoobench was made to settle: what decides on each, what was measured, and the verdict."""
