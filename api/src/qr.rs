//! QR codes as pictures.

use std::error::Error;

use qrcode::{Color, QrCode, render::svg};

/// Modules of quiet zone on each side, as the standard asks.
const MARGIN: usize = 4;
/// Pixels a module.
const SCALE: usize = 8;

/// Its modules, a string of 0 and 1 a row: for a page that draws them itself.
///
/// # Errors
/// Where the text is too long for a code.
pub fn modules(text: &str) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let code = QrCode::new(text)?;
    let rows = code.to_colors();
    Ok(rows.chunks(code.width()).map(|row| row.iter().map(|c| if *c == Color::Dark { '1' } else { '0' }).collect()).collect())
}

/// As SVG.
///
/// # Errors
/// Where the text is too long for a code.
pub fn svg(text: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    Ok(QrCode::new(text)?.render::<svg::Color<'_>>().min_dimensions(256, 256).build().into_bytes())
}

/// As PNG, one grey byte a pixel: no need of an image library.
///
/// # Errors
/// Where the text is too long for a code.
pub fn png(text: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let code = QrCode::new(text)?;
    let (n, side) = (code.width(), (code.width() + 2 * MARGIN) * SCALE);
    let modules = code.to_colors();
    let within = MARGIN..n + MARGIN;
    let dark =
        |x: usize, y: usize| within.contains(&x) && within.contains(&y) && modules.get((y - MARGIN) * n + x - MARGIN) == Some(&Color::Dark);
    let pixels: Vec<u8> = (0..side * side).map(|i| if dark(i % side / SCALE, i / side / SCALE) { 0 } else { 255 }).collect();
    let side = u32::try_from(side)?;
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pictures_have_the_form_they_say() {
        let text = "2@abcdefghijklmnopqrstuvwxyz0123456789,key,key,key,1";
        assert!(png(text).unwrap().starts_with(b"\x89PNG\r\n"));
        assert!(String::from_utf8(svg(text).unwrap()).unwrap().contains("<svg"));
        assert!(png(&"x".repeat(10_000)).is_err());
    }
}
