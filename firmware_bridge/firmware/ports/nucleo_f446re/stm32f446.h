/* Registers of the STM32F446 that the port uses (reference manual RM0390: 2.2 memory map, and
 * the register maps at the end of chapters 3 flash, 6 RCC, 7 GPIO, 9 DMA, 13 ADC, 14 DAC,
 * 16 to 18 timers, 20 IWDG, 25 USART). */
#ifndef LMD_STM32F446_H
#define LMD_STM32F446_H

#include "cortexm.h"

/* chapter 6: reset and clock control */
#define RCC_CR REG32(0x40023800u) /* HSEON 16, HSERDY 17, HSEBYP 18, PLLON 24, PLLRDY 25 */
#define RCC_PLLCFGR REG32(0x40023804u)
#define RCC_CFGR REG32(0x40023808u)
#define RCC_AHB1ENR REG32(0x40023830u)
#define RCC_APB1ENR REG32(0x40023840u)
#define RCC_APB2ENR REG32(0x40023844u)
#define FLASH_ACR REG32(0x40023C00u)

/* chapter 7: GPIO */
#define GPIOA 0x40020000u
#define GPIOB 0x40020400u
#define GPIOC 0x40020800u
#define GPIO_MODER 0x00u
#define GPIO_OSPEEDR 0x08u
#define GPIO_PUPDR 0x0Cu
#define GPIO_IDR 0x10u
#define GPIO_BSRR 0x18u
#define GPIO_AFRL 0x20u

/* chapter 9: DMA; stream s at +0x10 + 0x18 s */
#define DMA1 0x40026000u
#define DMA2 0x40026400u
#define DMA_LISR 0x00u
#define DMA_HISR 0x04u
#define DMA_LIFCR 0x08u
#define DMA_HIFCR 0x0Cu
#define DMA_CR(s) (0x10u + 0x18u * (s))
#define DMA_NDTR(s) (0x14u + 0x18u * (s))
#define DMA_PAR(s) (0x18u + 0x18u * (s))
#define DMA_M0AR(s) (0x1Cu + 0x18u * (s))

/* chapters 13, 14, 20 */
#define ADC1_SR REG32(0x40012000u)
#define ADC1_CR2 REG32(0x40012008u)
#define ADC1_SMPR1 REG32(0x4001200Cu)
#define ADC1_SQR3 REG32(0x40012034u)
#define ADC1_DR REG32(0x4001204Cu)
#define ADC_CCR REG32(0x40012304u)
#define DAC_CR REG32(0x40007400u)
#define DAC_DHR12R1 REG32(0x40007408u)
#define IWDG_KR REG32(0x40003000u)
#define IWDG_PR REG32(0x40003004u)
#define IWDG_RLR REG32(0x40003008u)

/* chapters 16 to 18: timers */
#define TIM1 0x40010000u
#define TIM2 0x40000000u
#define TIM3 0x40000400u
#define TIM4 0x40000800u
#define TIM8 0x40010400u
#define TIM_CR1 0x00u
#define TIM_SMCR 0x08u
#define TIM_DIER 0x0Cu
#define TIM_EGR 0x14u
#define TIM_CCMR1 0x18u
#define TIM_CCER 0x20u
#define TIM_CNT 0x24u
#define TIM_PSC 0x28u
#define TIM_ARR 0x2Cu
#define TIM_CCR1 0x34u
#define TIM_BDTR 0x44u

/* chapter 25 */
#define USART2_SR REG32(0x40004400u) /* IDLE 4 */
#define USART2_DR REG32(0x40004404u)
#define USART2_DR_ADDRESS 0x40004404u
#define USART2_BRR REG32(0x40004408u)
#define USART2_CR1 REG32(0x4000440Cu)
#define USART2_CR3 REG32(0x40004414u)

#ifndef UNIQUE_ID
#define UNIQUE_ID 0x1FFF7A10u /* 96 bits, chapter 39.1 */
#endif

/* numbers in the vector table, chapter 10 */
#define IRQ_DMA1_STREAM6 17u
#define IRQ_USART2 38u
#define IRQ_DMA2_STREAM1 57u

#endif
