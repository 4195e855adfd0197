"""How processes meet: messages, wire format, sockets, queues. No process of its own."""
