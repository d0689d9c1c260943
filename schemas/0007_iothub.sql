-- Devices of IoT Hub's dialect (gateway/dialect/iothub.h): their ids have a wider alphabet.
alter table device drop constraint device_device_id_check;
alter table device add constraint device_device_id_check
    check (device_id ~ '^[A-Za-z0-9.+%_#*?!(),:=@$''-]{1,128}$');
