/** What stands where content would: nothing there yet, or it could not be had. */
import type { ComponentChildren, JSX } from "preact";
import type { IconName } from "../icons/icon_names.ts";
import { Button } from "./button.tsx";
import { Icon } from "./icon.tsx";

export interface EmptyStateProps {
  readonly icon: IconName;
  readonly title: string;
  readonly text?: ComponentChildren;
  /** Buttons for what to do next. */
  readonly children?: ComponentChildren;
}

export function EmptyState({ icon, title, text, children }: EmptyStateProps): JSX.Element {
  return (
    <div class="state">
      <div class="state__icon">
        <Icon name={icon} size="large" />
      </div>
      <h2 class="state__title">{title}</h2>
      {text && <p class="state__text">{text}</p>}
      {children && <div class="state__actions">{children}</div>}
    </div>
  );
}

export interface ErrorStateProps {
  readonly title: string;
  /** What happened, whether anything was lost, what to do. */
  readonly text: string;
  readonly onRetry?: () => void;
}

export function ErrorState({ title, text, onRetry }: ErrorStateProps): JSX.Element {
  return (
    <div class="state state--danger" role="alert">
      <div class="state__icon">
        <Icon name="triangle-alert" size="large" />
      </div>
      <h2 class="state__title">{title}</h2>
      <p class="state__text">{text}</p>
      {onRetry && (
        <div class="state__actions">
          <Button icon="refresh-cw" onClick={onRetry}>Try again</Button>
        </div>
      )}
    </div>
  );
}
