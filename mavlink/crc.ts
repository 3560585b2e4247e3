/**
 * The checksum of a MAVLink frame (CRC-16/MCRF4XX, "X.25" in the MAVLink guide): over the frame without its start byte, then over the
 * extra byte that stands for the layout of the message, so that two sides with different layouts refuse each other.
 */
const table = new Uint16Array(256);
for (let byte = 0; byte < 256; byte++) {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >> 1 : (crc >> 1) ^ 0x8408;
  table[byte] = crc;
}

/** The checksum over `bytes[from..to)` and the extra byte. */
export function frameCrc(bytes: Uint8Array, from: number, to: number, extra: number): number {
  let crc = 0xffff;
  for (let i = from; i < to; i++) crc = (crc >> 8) ^ (table[(crc ^ (bytes[i] as number)) & 0xff] as number);
  return (crc >> 8) ^ (table[(crc ^ extra) & 0xff] as number);
}
