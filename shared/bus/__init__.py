"""RabbitMQ as we use it: a publisher that knows what was confirmed, a consumer that comes back, and what travels."""

from shared.bus.connections import LOST
from shared.bus.consumer import Consumer
from shared.bus.depths import Depth, depths
from shared.bus.letters import Letter, Received, TooLarge, Unroutable, envelope_of, headers_of
from shared.bus.publisher import Publisher

__all__ = ["LOST", "Consumer", "Depth", "Letter", "Publisher", "Received", "TooLarge", "Unroutable", "depths", "envelope_of", "headers_of"]
