//! Asks the URL of the first argument and prints version, status and body.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("a URL is needed")?;
    let response = reqwest::blocking::get(url)?;
    println!("{:?} {}", response.version(), response.status().as_u16());
    println!("{}", response.text()?);
    Ok(())
}
