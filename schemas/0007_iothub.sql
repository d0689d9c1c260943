-- Placeholder: IoT Hub's access policies and device ids come with another change.
comment on table device is 'devices';
