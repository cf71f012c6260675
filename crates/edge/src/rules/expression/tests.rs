use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::rules::context::{Context, User};
use crate::rules::tests::no_rooms;

fn evaluate(text: &str, data: serde_json::Value) -> Result<serde_json::Value, String> {
    let expression = Expression::compile(text, Variable::EVENT)?;
    let claims = json!({ "rol": "admin", "big": 9_007_199_254_740_993_u64, "classrooms": ["a", 7] });
    let claims = claims.as_object().cloned().unwrap();
    let user = User {
        id: Some("42".into()),
        role: Some("admin".to_owned()),
        name: None,
        claims: claims.into(),
    };
    let context = Context {
        user: &user,
        sid: "S",
        rooms: no_rooms(),
        now_ms: 1500,
        id: "ID",
    };
    let args = [data];
    let variables = Variables::new("/", &context).event(&args[0], &args);
    let bytes = expression.json(&variables).map_err(|error| error.to_string())?;
    Ok(serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn expressions_see_their_variables() {
    for (text, data, expected) in [
        (
            "user.id == '42' && user.role == 'admin'",
            json!(null),
            json!(true),
        ),
        ("user.claims.rol in ['admin', 'root']", json!(null), json!(true)),
        ("data.a + 1", json!({ "a": 2 }), json!(3)),
        ("data.n == 1", json!({ "n": 1.0 }), json!(true)),
        ("user.claims.big", json!(null), json!(9_007_199_254_740_993_u64)),
        ("data", json!(u64::MAX), json!(u64::MAX)),
        ("data == null", json!(null), json!(true)),
        ("7 in user.claims.classrooms", json!(null), json!(true)),
        ("has(data.x) ? data.x : id", json!({}), json!("ID")),
        (
            "size(data) <= 3 && data.startsWith('a') && data.matches('^a+$')",
            json!("aa"),
            json!(true),
        ),
        (
            "merge(data, {'userId': user.id})",
            json!({ "userId": 1, "x": 2 }),
            json!({ "userId": "42", "x": 2 }),
        ),
        ("merge(data, {'a': 1})", json!(true), json!({ "a": 1 })),
        (
            "{'now': now, 'ms': now_ms}",
            json!(null),
            json!({ "now": "1970-01-01T00:00:01.500Z", "ms": 1500 }),
        ),
        (
            "data.all(x, x > 0) && data.exists(x, x == 2)",
            json!([1, 2]),
            json!(true),
        ),
        ("data.map(x, x * 2)", json!([1, 2]), json!([2, 4])),
        (
            "data.filter(x, x.exists(y, y == 1))",
            json!([[1], [2]]),
            json!([[1]]),
        ),
        ("string(data) + '!'", json!(5), json!("5!")),
        ("type(data) == string", json!("a"), json!(true)),
        (
            "data['key with space'] == args[0]['key with space']",
            json!({ "key with space": 1 }),
            json!(true),
        ),
        (
            "!(session.id == 'x') && size(session.rooms) == 0",
            json!(null),
            json!(true),
        ),
    ] {
        assert_eq!(evaluate(text, data), Ok(expected), "{text}");
    }
}

#[test]
fn bad_expressions_are_refused_when_compiled() {
    let long = format!("'{}' == ''", "a".repeat(4096));
    let chain = format!("data{}", ".a".repeat(2000));
    let three = "data.exists(x, x.exists(y, y.exists(z, z)))";
    let five = "data.all(a, a) && data.all(a, a) && data.all(a, a) && data.all(a, a) && data.all(a, a)";
    for (text, expected) in [
        ("", "no valid expression"),
        ("user.id ==", "at 1:"),
        ("user.id == '42", "no valid expression"),
        ("usr.id == '42'", "\"usr\" is not known here"),
        (
            "room.id == '42'",
            "\"room\" is not known here; expected one of user, data",
        ),
        ("x && data.exists(x, x)", "\"x\" is not known"),
        ("sise(data) > 1", "\"sise\" is not known"),
        ("duration('1s') == duration('1s')", "\"duration\" is not known"),
        ("data.map(x, y)", "\"y\" is not known"),
        ("data.matches(data)", "must be written in the rule"),
        ("data.matches('(')", "no regular expression"),
        ("a.B{c: 1}", "not known here"),
        (three, "loop inside a loop inside a loop"),
        (five, "loops more than 4"),
        (&long, "bytes"),
        (&chain, "deeper"),
    ] {
        let shown: String = text.chars().take(60).collect();
        let Err(problem) = Expression::compile(text, Variable::EVENT) else {
            panic!("taken: {shown}")
        };
        assert!(problem.contains(expected), "{shown}: {problem}");
        assert!(problem.len() < 400, "{shown}: {problem}");
    }
}

#[test]
fn texts_that_nest_without_end_cannot_overflow_the_stack() {
    let texts = [
        format!("{}1{}", "(".repeat(2000), ")".repeat(2000)),
        "(".repeat(4000),
        format!("{}true", "!".repeat(4000)),
        format!("{}1", "- ".repeat(2000)),
        format!("{}{}", "[".repeat(2000), "]".repeat(2000)),
        format!("{}{}", "{1:".repeat(1000), "}".repeat(1000)),
        format!("{}1", "true ? 1 : ".repeat(350)),
        format!("data{}", "[0]".repeat(1300)),
        format!("data{}", ".size()".repeat(580)),
        format!("{}1", "1 + ".repeat(1000)),
        format!("{}true", "true || ".repeat(500)),
        format!("{}data{}", "size(".repeat(680), ")".repeat(680)),
    ];
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
        for text in texts {
            if let Ok(expression) = Expression::compile(&text, Variable::EVENT) {
                assert!(expression.bounds.variables.len() <= 1);
            }
        }
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn failed_evaluations_are_errors() {
    for (text, data) in [
        ("data.missing == 1", json!({})),
        ("data.a.b.c", json!(null)),
        ("data + 1", json!("a")),
        ("1 / data", json!(0)),
        ("data % 0", json!(1)),
        ("data + data", json!(i64::MAX)),
        ("-data", json!(i64::MIN)),
        ("data / -1", json!(i64::MIN)),
        ("data[5]", json!([1])),
        ("data[-1]", json!([1])),
        ("int(data)", json!("x")),
        ("int(data)", json!(1e300)),
        ("data < 'a'", json!(1)),
        ("{data: 1}", json!(null)),
        ("double('inf')", json!(1)),
        ("data.all(x, x)", json!(5)),
    ] {
        assert!(evaluate(text, data).is_err(), "{text}");
    }
}

#[test]
fn loops_refuse_long_lists_and_end_in_time() {
    let list = |count: usize| json!((0..count).collect::<Vec<_>>());
    assert_eq!(evaluate("data.exists(x, x == 999)", list(1000)), Ok(json!(true)));
    assert!(
        evaluate("data.exists(x, x == 0)", list(1001))
            .unwrap_err()
            .contains("1000")
    );
    assert!(evaluate("data.a.b.exists(x, x == 0)", json!({ "a": { "b": list(1001) } })).is_err());
    let map: serde_json::Map<_, _> = (0..1001).map(|at| (at.to_string(), json!(at))).collect();
    assert!(evaluate("data.all(x, x != '')", json!(map)).is_err());
    assert_eq!(
        evaluate("size(data)", list(5000)),
        Ok(json!(5000)),
        "without a loop nothing is limited"
    );
    let started = Instant::now();
    assert_eq!(
        evaluate("data.exists(x, data.exists(y, x + y < 0))", list(250)),
        Ok(json!(false))
    );
    assert!(evaluate("data.exists(x, data.exists(y, x + y < 0))", list(251)).is_err());
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn what_is_built_has_a_bound() {
    let text = "x".repeat(4096);
    let data = json!({ "text": text, "list": (0..1000).collect::<Vec<_>>() });
    assert!(
        evaluate("data.list.map(x, data.text)", data)
            .unwrap_err()
            .contains("too large")
    );
}

#[test]
fn the_deepest_expression_fits_on_the_stack_of_a_thread() {
    // Unoptimised, a level takes some 40 KiB; a worker thread has 2 MiB.
    let thread = std::thread::Builder::new().stack_size(3 << 19).spawn(|| {
        let sum = |count: usize| format!("{}1{}", "(1 + ".repeat(count), ")".repeat(count));
        let deepest = (1..100)
            .take_while(|&count| evaluate(&sum(count), json!(1)).is_ok())
            .count();
        assert!((20..40).contains(&deepest), "{deepest}");
        let nested = (0..120).fold(json!(1), |value, _| json!([value]));
        assert_eq!(evaluate("data == args[0]", nested), Ok(json!(true)));
    });
    thread.unwrap().join().unwrap();
}
