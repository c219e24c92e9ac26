//! Sealing and opening as writers and readers, with a digest of what lies outside.

use std::io::{self, Read, Write};

use ring::digest::{Context, Digest, SHA256};
use service::seal::stream::{Opening, Sealing};

/// Seals what is written, and writes it on.
pub struct Seal<W> {
    sealing: Sealing,
    out: Vec<u8>,
    to: W,
    digest: Context,
    size: u64,
}

fn failed(why: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<W: Write> Seal<W> {
    pub fn new(sealing: Sealing, to: W) -> Self {
        Self { sealing, out: Vec::new(), to, digest: Context::new(&SHA256), size: 0 }
    }

    fn pass_on(&mut self) -> io::Result<()> {
        self.digest.update(&self.out);
        self.size += self.out.len() as u64;
        self.to.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The last piece; what is written after it was never there.
    pub fn finish(mut self) -> io::Result<(W, Digest, u64)> {
        let mut last = Vec::new();
        let sealing = self.sealing;
        sealing.finish(&mut last).map_err(failed)?;
        self.digest.update(&last);
        self.to.write_all(&last)?;
        Ok((self.to, self.digest.finish(), self.size + last.len() as u64))
    }
}

impl<W: Write> Write for Seal<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sealing.write(bytes, &mut self.out).map_err(failed)?;
        self.pass_on()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Opens what is read. Its end is told only behind the piece that is the last.
pub struct Open<R> {
    /// `None` behind the last piece.
    opening: Option<Opening>,
    from: R,
    plain: Vec<u8>,
    at: usize,
    part: Vec<u8>,
}

const PART: usize = 64 * 1024;

impl<R: Read> Open<R> {
    pub fn new(opening: Opening, from: R) -> Self {
        Self { opening: Some(opening), from, plain: Vec::new(), at: 0, part: vec![0; PART] }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.plain.clear();
        self.at = 0;
        while self.plain.is_empty() {
            let Some(mut opening) = self.opening.take() else { return Ok(()) };
            let read = self.from.read(&mut self.part)?;
            if read == 0 {
                return opening.finish(&mut self.plain).map_err(failed);
            }
            opening.write(&self.part[..read], &mut self.plain).map_err(failed)?;
            self.opening = Some(opening);
        }
        Ok(())
    }
}

impl<R: Read> Read for Open<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.plain.len() {
            self.fill()?;
        }
        let given = to.len().min(self.plain.len() - self.at);
        to[..given].copy_from_slice(&self.plain[self.at..self.at + given]);
        self.at += given;
        Ok(given)
    }
}
