/** The mark: a cloud of three discs, because everything here is on three disks. */
import type { JSX } from "preact";

export function BrandMark(): JSX.Element {
  return (
    <svg class="brand__mark" viewBox="0 0 34 28" aria-hidden="true" focusable="false">
      <circle class="brand__right" cx="24.5" cy="17.5" r="8.5" />
      <circle class="brand__left" cx="9" cy="18.5" r="7.5" />
      <circle class="brand__front" cx="16" cy="12.5" r="10.5" />
    </svg>
  );
}

export function Brand(): JSX.Element {
  return (
    <a class="brand" href="/" aria-label="PennCloud home">
      <BrandMark />
      <span>PennCloud</span>
    </a>
  );
}
