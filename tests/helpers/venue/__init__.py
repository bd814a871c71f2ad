"""An exchange on the loopback interface that takes orders: its books, and two ways to say it."""
