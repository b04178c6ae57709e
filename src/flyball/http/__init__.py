"""The one server shell and the one client shell: TLS, peer certificate, Host check, body caps."""
