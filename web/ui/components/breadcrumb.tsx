/** The way from the top to here. The last step is where we are. */
import type { JSX } from "preact";
import { Icon } from "./icon.tsx";

export interface BreadcrumbStep {
  readonly label: string;
  readonly href: string;
}

export interface BreadcrumbProps {
  readonly steps: readonly BreadcrumbStep[];
  /** Needed where a page has two. Default: "Path". */
  readonly label?: string;
}

export function Breadcrumb({ steps, label = "Path" }: BreadcrumbProps): JSX.Element {
  return (
    <nav aria-label={label}>
      <ol class="breadcrumb">
        {steps.map((step, index) => (
          <li class="breadcrumb__item" key={step.href}>
            {index > 0 && <Icon name="chevron-right" size="small" />}
            <a
              class="breadcrumb__link"
              href={step.href}
              title={step.label}
              {...(index === steps.length - 1 ? { "aria-current": "page" as const } : {})}
            >
              {step.label}
            </a>
          </li>
        ))}
      </ol>
    </nav>
  );
}
