//! Columns of text tables.

/// The width of a column: the number of characters of its longest cell.
pub fn column_width<const N: usize>(rows: &[[String; N]], column: usize) -> usize {
    rows.iter()
        .map(|row| row[column].chars().count())
        .max()
        .unwrap_or_default()
}
