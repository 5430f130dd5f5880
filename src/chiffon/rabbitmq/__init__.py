"""Set RabbitMQ up for Chiffon: what must be there, who may do what, and one user for each agent."""
