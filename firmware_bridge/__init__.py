"""Everything on the wire: transports, framing, motion links, device drivers, firmware."""
