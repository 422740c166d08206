use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    create: Create,
}

#[track_caller]
fn check_create(line: &str, expected: Result<&str, &str>) {
    let arguments = Line::parse_from(line.split(' ')).create;
    let found = request(&arguments)
        .map(|spec| serde_json::to_value(spec).unwrap())
        .map_err(|error| error.to_string());
    match expected {
        Ok(json) => assert_eq!(found, Ok(serde_json::from_str(json).unwrap())),
        Err(text) => assert_eq!(found, Err(text.to_owned())),
    }
}

#[test]
fn creations() {
    check_create(
        "create --name a --ip 10.0.0.7 --ip 2001:db8::7/64 --service web",
        Ok(
            r#"{"name":"a","service_group":{"name":"web"},"autostart":true,
            "network_interfaces":[{"ip":"10.0.0.7"},{"ip":"2001:db8::7/64"}]}"#,
        ),
    );
    check_create(
        "create --ip 10.0.0.7 -g 6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001 --stopped --image x",
        Ok(
            r#"{"service_group":{"uuid":"6e2b1a5e-35cb-4c1c-9d3c-0d5a5a0ce001"},"image":"x",
            "autostart":false,"network_interfaces":[{"ip":"10.0.0.7"}]}"#,
        ),
    );
    check_create(
        "create --ip 10.0.0",
        Err("'10.0.0' is no address; write --ip 10.0.0.7 or --ip 2001:db8::7"),
    );
    check_create(
        "create --ip 10.0.0.7 --ip 10.0.0.8",
        Err(
            "10.0.0.8 is the second address of its family; an instance has one of each, so \
             create another instance for it",
        ),
    );
    check_create(
        "create --ip 10.0.0.7 -p 443:8080 -d www.example.com",
        Ok(r#"{"service_group":{"services":[
            {"port":443,"destination_port":8080,"handlers":["tls","http"]},
            {"port":80,"destination_port":443,"handlers":["http","redirect"]}],
            "domains":[{"name":"www.example.com."}]},
            "autostart":true,"network_interfaces":[{"ip":"10.0.0.7"}]}"#),
    );
}
