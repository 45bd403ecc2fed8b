"""What is known of Asynq's layout in Redis: keys, messages, and the inspector that reads them."""
