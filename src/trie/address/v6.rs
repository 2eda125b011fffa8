#[derive(Debug)]
pub struct Table6;
