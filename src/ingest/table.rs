//! Columns of a parquet or CSV file.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// Rows that are read at a time.
const CHUNK: usize = 65_536;

/// All of a file, by column.
#[derive(Debug)]
pub struct Table {
    /// Rows.
    pub rows: usize,
    columns: Vec<(String, Column)>,
}

/// Values of one column.
#[derive(Debug)]
pub enum Column {
    /// Not-a-number where there is no value.
    Numbers(Vec<f64>),
    /// Empty where there is no value.
    Words(Vec<String>),
}

impl Table {
    /// # Errors
    /// The file is no table, or has a type of column that is not known.
    pub fn read(path: &Path) -> Result<Self> {
        let table = if path.extension().is_some_and(|e| e == "csv") { read_csv(path) } else { read_parquet(path) };
        table.with_context(|| path.display().to_string())
    }

    /// Adds a column of as many rows.
    pub fn add(&mut self, name: &str, values: Vec<f64>) {
        self.columns.push((name.to_owned(), Column::Numbers(values)));
    }

    /// Of the columns, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|c| c.0.as_str())
    }

    /// # Errors
    /// There is none of this name; those that there are.
    pub fn column(&self, name: &str) -> Result<&Column> {
        let found = self.columns.iter().find(|c| c.0 == name);
        found.map(|c| &c.1).with_context(|| {
            let known: Vec<&str> = self.names().collect();
            format!("no column `{name}`; there are {}", known.join(", "))
        })
    }

    /// A column of numbers; what is none is 0.
    ///
    /// # Errors
    /// There is none of this name, or it holds words.
    pub fn numbers(&self, name: &str) -> Result<Vec<f64>> {
        match self.column(name)? {
            Column::Numbers(all) => Ok(all.iter().map(|x| if x.is_nan() { 0.0 } else { *x }).collect()),
            Column::Words(_) => bail!("column {name} holds words"),
        }
    }

    /// A column as words, whatever it holds.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn words(&self, name: &str) -> Result<Vec<String>> {
        Ok(match self.column(name)? {
            Column::Numbers(all) => all.iter().map(f64::to_string).collect(),
            Column::Words(all) => all.clone(),
        })
    }
}

fn read_csv(path: &Path) -> Result<Table> {
    let mut reader = csv::Reader::from_path(path)?;
    let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
    let mut cells: Vec<Vec<String>> = vec![Vec::new(); names.len()];
    for record in reader.records() {
        cells.iter_mut().zip(record?.iter()).for_each(|(column, cell)| column.push(cell.to_owned()));
    }
    let rows = cells.first().map_or(0, Vec::len);
    let parse = |words: &[String]| -> Option<Vec<f64>> {
        words.iter().map(|w| if w.is_empty() { Some(f64::NAN) } else { w.parse().ok() }).collect()
    };
    let column = |words: Vec<String>| parse(&words).map_or_else(|| Column::Words(words), Column::Numbers);
    Ok(Table { rows, columns: names.into_iter().zip(cells.into_iter().map(column)).collect() })
}

fn read_parquet(path: &Path) -> Result<Table> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let schema = reader.metadata().file_metadata().schema_descr_ptr();
    let mut columns: Vec<(String, Column)> = Vec::new();
    for (i, described) in schema.columns().iter().enumerate() {
        let mut whole: Option<Column> = None;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group)?;
            let rows = usize::try_from(group.metadata().num_rows())?;
            let part = read_column(group.get_column_reader(i)?, described.max_def_level(), rows)
                .with_context(|| described.name().to_owned())?;
            match (&mut whole, part) {
                (Some(Column::Numbers(all)), Column::Numbers(part)) => all.extend(part),
                (Some(Column::Words(all)), Column::Words(part)) => all.extend(part),
                (whole, part) => *whole = Some(part),
            }
        }
        columns.extend(whole.map(|column| (described.name().to_owned(), column)));
    }
    Ok(Table { rows: usize::try_from(reader.metadata().file_metadata().num_rows())?, columns })
}

fn read_column(reader: ColumnReader, level: i16, rows: usize) -> Result<Column> {
    Ok(match reader {
        ColumnReader::BoolColumnReader(r) => Column::Numbers(read_values(r, level, rows, |v| f64::from(u8::from(*v)))?),
        ColumnReader::Int32ColumnReader(r) => Column::Numbers(read_values(r, level, rows, |v| f64::from(*v))?),
        ColumnReader::Int64ColumnReader(r) => Column::Numbers(read_values(r, level, rows, |v| *v as f64)?),
        ColumnReader::FloatColumnReader(r) => Column::Numbers(read_values(r, level, rows, |v| f64::from(*v))?),
        ColumnReader::DoubleColumnReader(r) => Column::Numbers(read_values(r, level, rows, |v| *v)?),
        ColumnReader::ByteArrayColumnReader(r) => {
            Column::Words(read_values(r, level, rows, |v| String::from_utf8_lossy(v.data()).into_owned())?)
        }
        _ => bail!("a type of column that is not read here"),
    })
}

/// A missing value.
trait Missing {
    fn missing() -> Self;
}

impl Missing for f64 {
    fn missing() -> Self {
        f64::NAN
    }
}

impl Missing for String {
    fn missing() -> Self {
        String::new()
    }
}

fn read_values<T: DataType, X: Missing>(
    mut reader: ColumnReaderImpl<T>,
    level: i16,
    rows: usize,
    convert: impl Fn(&T::T) -> X,
) -> Result<Vec<X>> {
    // What a file says of its size is believed when the rows are there.
    let mut all = Vec::with_capacity(rows.min(1 << 20));
    while all.len() < rows {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (records, _, _) = reader.read_records(CHUNK, (level > 0).then_some(&mut levels), None, &mut values)?;
        if records == 0 {
            bail!("{} of {rows} rows", all.len());
        }
        let mut values = values.iter();
        if level == 0 {
            levels.resize(records, 0);
        }
        all.extend(levels.iter().map(|l| {
            let value = if *l == level { values.next().map(&convert) } else { None };
            value.unwrap_or_else(X::missing)
        }));
    }
    Ok(all)
}
