"""How a gate says that it failed."""


class GateError(Exception):
    """Something is not as the gate demands; the message has the count."""


def demand(condition: bool, message: str) -> None:
    """Raises ``GateError`` unless the condition holds."""
    if not condition:
        raise GateError(message)
