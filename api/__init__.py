"""HTTP, auth, conversations, widget. Wires the packages below; holds no logic of its own."""
