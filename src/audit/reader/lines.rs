//! Lines of a file, forwards and backwards, one in memory at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::FileExt;

/// Lines from a place on, each with its newline; the last one may have none.
pub(super) struct Lines {
    file: BufReader<Take<File>>,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn from(mut file: File, offset: u64) -> io::Result<Self> {
        // What is written meanwhile is for the next time; what is no file has no length, and may have no end.
        let length = file.metadata()?.len().saturating_sub(offset);
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file: BufReader::with_capacity(1 << 16, file.take(length)), line: Vec::new() })
    }

    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = self.file.read_until(b'\n', &mut self.line)?;
        Ok((read > 0).then_some(&self.line))
    }
}

/// Lines from the end on, without their newlines.
pub(super) struct LastLines {
    file: File,
    /// What was read and not given; it ends where the last given line began.
    rest: Vec<u8>,
    /// Where `rest` begins in the file.
    begin: u64,
    done: bool,
}

impl LastLines {
    const CHUNK: usize = 1 << 16;

    pub(super) fn of(file: File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Self { file, rest: Vec::new(), begin: end, done: end == 0 })
    }

    /// Where the last line without a newline begins; the end if there is none such. To be asked before any line.
    pub(super) fn whole(&mut self) -> io::Result<u64> {
        while !self.rest.contains(&b'\n') && self.read_more()? {}
        Ok(memchr::memrchr(b'\n', &self.rest).map_or(self.begin, |at| self.begin + at as u64 + 1))
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.done {
            return Ok(None);
        }
        loop {
            if let Some(at) = memchr::memrchr(b'\n', &self.rest) {
                let line = self.rest.split_off(at + 1);
                self.rest.truncate(at);
                return Ok(Some(line));
            }
            if !self.read_more()? {
                self.done = true;
                return Ok(Some(std::mem::take(&mut self.rest)));
            }
        }
    }

    /// Reads a chunk before what was read. False at the beginning of the file.
    fn read_more(&mut self) -> io::Result<bool> {
        let size = Self::CHUNK.min(usize::try_from(self.begin).unwrap_or(usize::MAX));
        if size == 0 {
            return Ok(false);
        }
        let mut chunk = Vec::with_capacity(size + self.rest.len());
        chunk.resize(size, 0);
        self.begin -= size as u64;
        self.file.read_exact_at(&mut chunk, self.begin)?;
        chunk.append(&mut self.rest);
        self.rest = chunk;
        Ok(true)
    }
}
